from pathlib import Path

Path("outputs").mkdir(exist_ok=True)
Path("outputs/before.txt").write_text("written before the end")
raise ValueError("the reason, in its own words")
