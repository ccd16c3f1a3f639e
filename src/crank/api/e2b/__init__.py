"""The E2B wire protocol: HTTP only, no decisions.

app        what belongs to which port, and who is let in
replies    faults in the words of each part of the protocol
control    sandboxes: make, find, list, prolong, end
files      contents of files
upload     bodies of uploads, unpacked and bounded beside the loop
process    commands, over Connect
filesystem folders, over Connect
connect    Connect's framing, in JSON
code       the code interpreter
"""
