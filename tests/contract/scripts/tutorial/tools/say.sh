#!/bin/sh
echo "started by its name, $1"
