from tests.models.small_maskvlm import small_maskvlm
from tests.models.writers import stirred


def contract_model():
    return stirred(small_maskvlm())
