from tests.models.small_fusion import small_blip
from tests.models.writers import stirred


def contract_model():
    return stirred(small_blip())
