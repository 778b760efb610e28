"""The figure of a coordinate check, from a document as its script writes it."""

import math

from sweep.report.coordinates import coordinate_curves, coordinate_figure

DOCUMENT = {
    "n_steps": 4,
    "checks": [
        {
            "optimizer": "adamw",
            "parametrization": name,
            "slopes": {"logits": slope, "embedding": 0.0},
            "widths": [
                {"d_model": d, "change": {"logits": 0.1 * d**slope, "embedding": 0.3}} for d in (32, 64, 128)
            ],
        }
        for name, slope in (("standard", 1.0), ("mup", 0.0))
    ],
}


def test_curves_hold_the_numbers_of_the_document():
    curves = coordinate_curves(DOCUMENT)
    assert [(curve.panel, curve.activation) for curve in curves] == [
        ("adamw, standard", "logits"),
        ("adamw, standard", "embedding"),
        ("adamw, mup", "logits"),
        ("adamw, mup", "embedding"),
    ]
    assert curves[0].widths == (32, 64, 128)
    assert math.isclose(curves[0].changes[2] / curves[0].changes[0], 4.0)


def test_panels_share_their_scale_and_say_their_steepest_slope():
    figure = coordinate_figure(coordinate_curves(DOCUMENT), 4)
    figure.canvas.draw()
    standard, mup = figure.axes
    assert standard.get_ylim() == mup.get_ylim()
    assert standard.get_title().endswith("steepest slope +1.00")
    assert [text.get_text() for text in mup.get_legend().get_texts()] == ["logits", "embedding"]
