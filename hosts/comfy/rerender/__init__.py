"""Rerender A Video (Yang et al. 2023): two passes on every frame, held to earlier results.

The first frame of a scene is painted once. Every later frame is painted, its picture is laid under
earlier results that the motion brings along, and it is painted again, pulled towards that picture.
"""
