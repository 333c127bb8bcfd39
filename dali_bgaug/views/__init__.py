"""Views: options and chance -> a table of render jobs -> pixels.

    options              what a recipe may say of a view
    backgrounds          which views get another background, and who lends it
    photometric          photometric parameters of a view, drawn
    distortion           distortions of a mask, drawn
    plan                 options and random numbers -> the table of a batch
    describe             a recipe in words
    table                the table of render jobs: records and their fields
    crop_boxes           crop boxes, chosen among those drawn
    render               what both renderers take and give
    cpu                  the CPU renderer: threads that run the kernels
    kernels              Numba: a job's image, from photo to view
    kernels_resample     Numba: crop and resize
    kernels_photometric  Numba: colour, blur, solarize, normalise
    kernels_base         Numba: what the kernels share
    gpu                  the GPU renderer: launches of the kernels
    gpu_crop_boxes       Triton: crop boxes
    gpu_pixels           Triton: crop, resize, blur, background
    gpu_colour           Triton: colour jitter
    gpu_records          Triton: fields of the table's records

Policy and chance are above the table, pixels below it (docs/architecture.md).
"""
