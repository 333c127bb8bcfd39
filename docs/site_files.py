"""MkDocs hook: the site has the repository's layout, README.md at its root and these pages in docs/.

MkDocs knows one folder of pages only. With that layout a link from one page to another, or to an example, is
right on the site as it is in a checkout.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SHOWN = (
    *("*.md", "docs/*.md", "docs/*.png", "benchmarks/*.md", "benchmarks/*.png", "LICENSE", "Dockerfile"),
    *("examples/*.py", "examples/slurm/*.sh", "examples/k8s/*.yaml"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All that is shown or linked to, and the theme's own files."""
    root = Path(config.config_file_path).parent
    paths = [path.relative_to(root) for pattern in SHOWN for path in sorted(root.glob(pattern))]
    shown = [File(str(path), str(root), config.site_dir, config.use_directory_urls) for path in paths]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *shown])
