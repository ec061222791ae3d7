"""The parts of the local backend: the supervisor process, the job's processes, its working directory."""
