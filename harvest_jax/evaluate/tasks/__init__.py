"""One file for each task, found by its name: `config.task = "retrieval"` is `tasks/retrieval.py`.

A task is a module with
  Settings: a frozen dataclass, `settings.TaskSettings` with the task's own fields;
  run(model, data, settings, progress): the scores, a `results.TaskOutput`; `settings.frames` is not 0 here;
  table(metrics): the lines that show the scores on a terminal.
"""
