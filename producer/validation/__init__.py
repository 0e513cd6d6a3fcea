"""Pairs of images and captions, weighed, and what their scores say of them all."""
