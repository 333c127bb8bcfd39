"""One file per method: which views it takes, and what else it gives the trainer.

A method is a module with

    DEFAULTS   values of its LoaderConfig, as a recipe would give them; `views` names its views
    check      optional: (config) -> None, raises ValueError for what the method cannot do
    graph      (source, config) -> outputs by name; `make_views` (dali_bgaug.graph.views) makes the views

A file put here is a method: nothing else has to be entered anywhere.
"""
