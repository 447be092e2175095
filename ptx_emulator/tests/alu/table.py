"""All tested forms."""

import itertools

from . import (
    bit_forms,
    compare_forms,
    convert_forms,
    float_forms,
    integer_forms,
    move_forms,
)

FAMILIES = (integer_forms, bit_forms, float_forms, compare_forms, convert_forms, move_forms)
FORMS = [form for family in FAMILIES for form in family.forms()]


def opcode_of(word):
    return word.partition(".")[0]


def group_of(form):
    return f"{opcode_of(form.word)}({', '.join(form.ins)})"


GROUPS = {
    name: list(forms)
    for name, forms in itertools.groupby(sorted(FORMS, key=group_of), key=group_of)
}
