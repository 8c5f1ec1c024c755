"""The engines, one file each; `benchmarks.worker` runs their functions.

train(folder)   a training step on the folder's data
infer(folder)   a run on the folder's data, which is copied in each time as an array; returns the outputs by name
load(folder)    the first call builds the net and reads its weights; later calls run it
"""
