"""Stands for the network: what urlretrieve() fetches lies in the folder mnist beside."""

import shutil
import urllib.request
from pathlib import Path


def urlretrieve(url, filename):
    shutil.copyfile(Path(__file__).parent / "mnist" / url.rsplit("/", 1)[1], filename)


urllib.request.urlretrieve = urlretrieve
