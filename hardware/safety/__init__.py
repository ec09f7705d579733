"""The safety chain as a robot declares it: one model per filter and per source of rows, each with its bounds."""
