"""Pieces of the DALI graph. Each takes and returns DataNodes and works on both backends from one source.

    views.py        the views of a photo: by operators.py (GPU) or by compiled.py (CPU)
    plan.py         what happens to each photo of a batch, in numbers
    operators.py    views by DALI's operators: the pieces below, strung together
    compiled.py     views by kernels.py, which DALI calls by entries.py, as operators in adapters.py
    context.py      backend, and every random number of a graph
    read.py         shards -> encoded photo, packed mask, tile, label
    outputs.py      what a graph of views ends with
    crop.py         windows, window -> view (crop, resize, flip in one operator), view -> normalised output
    masks.py        packed bits -> the mask of a view
    photometric.py  colour jitter, grayscale, blur
    background.py   donors, backgrounds, compositing
    inspect.py      what views were made from, for contact sheets

Pixels are the business of DALI operators, or of kernels; numbers (draws, windows, donors) come from NumPy,
once a batch and vectorised over it, because dispatching a DALI operator costs more than all the arithmetic a
batch needs. An `if` on a DataNode splits the batch (`enable_conditionals`), so what the other branch would
compute is not.
"""
