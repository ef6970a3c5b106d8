"""The command line: commands, progress, exit codes. Nothing below it prints."""
