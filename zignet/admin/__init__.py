"""The control process: whatever is slow or exposed, beside the packet process and without its rights.

node       its questions to the packet process
"""
