"""The composition root: the only room that knows which adapter stands behind which port.

files       small files that are whole or absent, and the node's lock
leash       the bond between the keeper and its children
keeper      the process of `crank up`
controller, worker   each process wired from top to bottom
processes   what each process runs
node        the node as others see it: start, find, stop
profiles    the environments of this machine
examine     what `crank doctor` finds
facade      `crank.Client`, finding the node by itself
"""
