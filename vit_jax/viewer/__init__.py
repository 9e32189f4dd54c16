"""The viewer: one offline HTML file in which a model's attention to pictures is explored by hand.

    vit_jax.viewer.write_page("page.html", pipeline, "cat.jpg")
    vit_jax.viewer.show(pipeline, "cat.jpg")             # in a notebook

A page has, for each picture:

    scores        of attention in every layer, as quantized factors (factors.py) within a number of bytes (budget.py).
                  The browser computes the row of a token from them, in any layer and head, when it is asked for.
    similarities  of all tokens after each layer, in the same form
    maps          of the explanation methods (maps.py)

Models of 17 and of 1,370 tokens are stored alike. A relative position bias is stored as its table. The largest
difference from the model's own attention is measured, and the page states it.

static/ has the page itself: markup, style, and JavaScript modules that bundle.py joins into one script.
"""

from vit_jax.viewer.page import Page, check_page_path, show, write_page

__all__ = ["Page", "check_page_path", "show", "write_page"]
