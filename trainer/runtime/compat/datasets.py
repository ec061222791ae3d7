from trainer.runtime.compat.patch import Patch

PATCHES: tuple[Patch, ...] = ()
