"Sphinx's settings for the pages that `docs/build.py` stages. It adds the repository, if settings.ini names one."
from latex2mathml.converter import convert

project, author, copyright = "vsGRPO", "the vsGRPO developers", "2026, the vsGRPO developers"
extensions = ["myst_nb", "sphinx_copybutton"]
html_theme, html_title, html_logo = "sphinx_book_theme", "vsGRPO", None
html_theme_options = dict(use_download_button=False, use_fullscreen_button=False, show_toc_level=2,
                          home_page_in_toc=True)
html_context = {"default_mode": "auto"}
html_static_path, html_css_files, html_show_sourcelink, html_copy_source = ["_static"], ["pages.css"], False, False
myst_enable_extensions, myst_heading_anchors = ["dollarmath", "amsmath"], 4
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show code", "Hide code"
copybutton_selector = "div.highlight:not(.cell_output *) pre"    # code, not what it printed
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]
exclude_patterns = ["_build"]


def _math(display):
    def visit(self, node):
        from docutils.nodes import SkipNode
        formula = convert(node.astext(), display="block" if display else "inline")
        self.body.append(f'<div class="wide">{formula}</div>' if display else f'<span class="formula">{formula}</span>')
        raise SkipNode
    return visit


def setup(app):
    app.add_html_math_renderer("mathml", (_math(False), None), (_math(True), None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


html_math_renderer = "mathml"
