"""What a sweep is made of: no file here that runs on a node imports torch.

tasks.py makes tasks of the jobs of a grid; scheduler.py runs them on an executor, one of local_processes.py,
ray_cluster.py and slurm_queue.py; execution.py is one command; rows.py is what it left, and the file of rows;
summary.py the table and the page; folder_lock.py keeps a second sweep out.
"""
