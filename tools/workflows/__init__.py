"""The example workflows, one file each, and the few words that they are written in.

`graph.py` makes nodes and links, `layout.py` decides where nodes stand, `parts.py` has what many
workflows share, and `models.py` names the model files.
"""
