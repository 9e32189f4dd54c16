"""Checks that every figure must pass."""


def assert_texts_apart(figure):
    """Check that no text of a rendered figure overlaps other text or crosses the figure's edge."""
    renderer = figure.canvas.get_renderer()
    texts = [axes.title for axes in figure.axes] + list(figure.texts)
    for axes in figure.axes:
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    assert boxes
    for i, box in enumerate(boxes):
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
        assert not any(box.shrunk(0.98, 0.98).overlaps(other) for other in boxes[i + 1 :])
