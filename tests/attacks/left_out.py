"""The list of ids that the suite answers for, and the short list of those that cannot be run here, with the reason."""

# Groups A to O, as the letters of `tests.attacks.case` say.
_IDS = """
    A01 A03 A04 A06 A07 A09 A10 A12 A13 A15 A16 A18 A19 A21 A22 A24 A25 A27 A28 A30
    B01 B03 B04 B06 B07 B09 B10 B12 B13 C01 C03 C04 C06 C07 C09 C10 C12 C13
    D01 D03 D04 D06 D07 D09 D10 D12 D13 D15 D16 D18 D19 E01 E03 E04 E06 E07 E09 E10 E12 E13 E15
    F01 F03 F04 F06 F07 F09 F10 F12 F13 G01 G03 G04 G06 G07 G09 G10 H01 H03 H04 H06 H07 H09 H10 H12 H13 H15 H16
    I01 I03 I04 I06 I07 I09 I10 J01 J03 J04 J06 J07 J09 K01 K03 K04 K06 K07 K09 K10 L01 L03 L04 L06 L07 L09 L10
    M01 M03 M04 M06 M07 N01 N03 N04 N06 N07 N09 O01 O03 O04 O06
"""
IDS = frozenset(_IDS.split())

_NO_GPU = "Needs an accelerator; nothing here has one."

LEFT_OUT = {
    "I07": "Needs the tier that stands on Landlock alone.",
    "I10": "Jobs cannot call capabilities yet; there is no broker to flood.",
    "K07": "A worker takes up a new build only when it starts; there is no upgrade in mid-traffic.",
    "L06": "Sessions cannot branch.",
    "M01": _NO_GPU,
    "M03": _NO_GPU,
    "M04": _NO_GPU,
    "M06": _NO_GPU,
    "M07": _NO_GPU,
    "N07": "Stale, repeated and disordered words of workers belong to the controller's own tests (test_lifecycle).",
    "N04": "A build without one layer is made in the sandbox's own tests (test_sandbox_launcher), not here.",
}
