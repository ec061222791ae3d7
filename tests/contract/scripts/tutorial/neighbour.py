NAME = "tutorial.neighbour"
