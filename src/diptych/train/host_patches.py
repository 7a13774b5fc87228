"""Whether the loader may leave out the patches that the model would drop, and which share of them that is."""

from diptych.data.patches import PatchShare
from diptych.models.vision_transformer import VisionTransformer
from diptych.objectives.objective import Objective


def host_patches(objective: Objective) -> PatchShare | None:
    """The patches that batches for `objective` hold in place of images; None where they must hold whole images.

    Only for a vision transformer that trains with patch_dropout, under an objective that passes patches on.
    """
    tower = getattr(objective.model, "image_tower", None)
    if not objective.takes_patches or not isinstance(tower, VisionTransformer) or not tower.training:
        return None
    return PatchShare(tower.config.patch_size, tower.config.patch_dropout) if tower.config.patch_dropout else None
