"""``trainer view``: the runs of a project as a page on this machine. It reads and never writes.

``feed`` keeps up with the runs' folders, ``curves`` holds their metrics and draws them down to what a screen can show,
``app`` answers HTTP, ``server`` starts it. The page itself lies in ``static``; uPlot, which draws its curves, is there
as its makers ship it, with its licence.
"""
