"""The trainer child: rows of token ids and a parent adapter in, an adapter folder with its proof out.

`python -m selfreward.training FOLDER` reads what `job.write_job` left in FOLDER and leaves `FOLDER/adapter`.
Nothing is rendered or tokenised here: prompt ids are what the engine was fed and completion ids what it
sampled. It knows no rubric, no recipe and no store; the driver tails `FOLDER/train.jsonl` and moves the
finished folder.
"""
