"""What holds for every figure."""


def assert_texts_apart(figure):
    """No text lies over other text or past the edge of a figure that has been drawn."""
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    texts = [axes.title for axes in figure.axes] + list(figure.texts)
    for axes in figure.axes:
        if axes.axison:
            texts += [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    assert boxes
    for i, box in enumerate(boxes):
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
        assert not any(box.shrunk(0.98, 0.98).overlaps(other) for other in boxes[i + 1 :])
