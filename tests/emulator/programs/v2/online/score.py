import json
import logging
import os


def init():
    global words
    path = os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model.txt")
    with open(path) as stream:
        words = stream.read().strip()
    logging.info("Init complete")
    print("loaded", words)


def run(raw_data):
    logging.info("Request received")
    data = json.loads(raw_data)["data"]
    return {"model": words, "sum": sum(data), "greeting": os.environ.get("GREETING")}
