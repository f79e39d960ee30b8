"""Write data sets as DCMTK's receivers do, byte for byte.

DCMTK reads a received data set into memory and writes it anew, which changes more than one would think: order and
lengths, padding, VRs. Here `detector` tells while a data set arrives whether that would change anything, so that most
instances stay as they are; what is left `writer` writes anew in two passes over the received bytes.
"""
