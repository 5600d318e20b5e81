"""The files of an exported `hf_video` folder that are the same for every model; they are copied, not imported here."""
