TEXT = "from the package"
