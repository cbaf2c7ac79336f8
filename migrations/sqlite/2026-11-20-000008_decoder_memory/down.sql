DROP TABLE decoder_memory;
