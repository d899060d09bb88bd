"""Jobs: executor, `@task` and registry, plugins, progress, the context that tasks get."""
