"""Initial weights of a run (`--init`): weights only, at epoch 0 with a fresh optimizer.

    a run's folder, a checkpoint    all networks of the same method, with its classifier
    an export with its card         the backbone alone; of every network that has one (MoCo-v2's, BYOL's two)

Queues and generators are no weights: they start as ever.
"""

from torch import nn

from dali_bgaug.errors import UserError
from train.config import RunConfig
from train.export import load_weights, read_backbone, read_checkpoint
from train.method import Method


def load_initial(method: Method, config: RunConfig, class_names: list[str]) -> None:
    """Load the weights of `config.init` into a method; every rank must call this.

    class_names: of the run's data, in the order of labels.

    Raises:
        UserError: they are another method's, another backbone's, or of other classes, or do not fit; names
            the file and what does not.
    """
    path, source = config.init, f"--init={config.init}"
    exported = path.is_file() and path.with_suffix(".json").is_file()
    stored = read_backbone(path) if exported else read_checkpoint(path)
    trained = stored.config if exported else stored.run_config()
    if trained["backbone"] != config.backbone:
        raise UserError(
            f"{source}: weights of backbone={trained['backbone']}, this run has backbone={config.backbone}; "
            "take the same"
        )
    if exported:
        for network in method.networks():
            load_weights(network, stored.weights, source)
        return
    alone = "the exported backbone.pt for the backbone alone"
    name = trained["method"]["name"]
    if name != config.method.name:
        raise UserError(
            f"{source}: a run of method.name={name}, this is {config.method.name}; give a run of the same "
            f"method, or {alone}"
        )
    names = stored.data.get("class_names", class_names)
    if config.method.pipeline == "supervised" and names != class_names:  # its classifier is of these
        different = sorted(set(names) ^ set(class_names))
        how = f"only in one of them: {', '.join(different[:8])}" if different else "in another order"
        raise UserError(
            f"{source}: its {len(names)} classes are not the {len(class_names)} of "
            f"data.shards={config.data.shards} ({how}); give weights of the same classes, or {alone}"
        )
    weights = {key: value for key, value in stored.method.items() if "." in key}
    load_weights(nn.ModuleDict(dict(method.named_children())), weights, source)
