"""The processes of a node, each in a file so that it loads its own part alone. People use `crank up`."""
