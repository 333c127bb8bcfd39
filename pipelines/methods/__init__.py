"""One file per method: which views it takes, said in options; `dali_bgaug.views.plan` says what becomes of
them.

A method is a module with

    DEFAULTS   values of its LoaderConfig, as a recipe would give them; `views` names its views
    check      optional: (config) -> None, raises ValueError for what the method cannot do
    COMPLETE   optional: True if an epoch is every photo once, in order

A file put here is a method: nothing else has to be entered anywhere.
"""
