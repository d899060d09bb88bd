"""Who may run the tasks that manage tokens: signatures of jobs, and other workers that relay them."""
