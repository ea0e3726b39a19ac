"""Settings of Sphinx for the documentation's site."""

project = "Track A"
language = "en"
extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = "Track A"
html_show_sourcelink = False
html_show_search_summary = False  # a page that is opened from the disk may not read its neighbours
html_copy_source = False
html_static_path: list[str] = []
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "header_links_before_dropdown": 6,
}
