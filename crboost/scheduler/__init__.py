"""Jobs on a cluster: what they ask for, how they are submitted, what became of them.

`resources` decides what a job needs, `submission` writes it into a run's directory, `template`
fills what RELION leaves open in a submission template, `ask` runs the scheduler's commands,
`slurm_text` reads what they print, `state` decides what that means, `submitted` finds a RELION
job's number, `outcome` joins these for whoever waits for a job,
`cluster` knows the site, `memory` what the kernel killed, `array` is about one job's tasks.
"""
