"""``import trainer.runtime.compat.auto`` applies the layer to this process and its children."""

from trainer.runtime import compat

compat.apply()
compat.apply_to_children()
