"""``python -m diptych`` (and so ``torchrun -m diptych``): the same as the command ``diptych``."""

from diptych.cli.main import main

main()
