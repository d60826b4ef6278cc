"""The task's part of a run's report."""
def report_sections(module, run):
    return []
