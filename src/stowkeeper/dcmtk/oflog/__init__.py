"""The log of the drop-in commands, as DCMTK keeps it: loggers by name, appenders, layouts, and files that set them up.

`loggers` is the way in. A file for `--log-config` is read by `properties` and `config`, its appenders are made by
`building`. The standard library's `logging` carries the messages, under a root of its own: nothing here is seen by
other loggers of the process.
"""
