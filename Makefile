# make demo   generate frames, train a small U-Net, predict, evaluate (needs only Python, git and make)
# make test   check the style and run all tests
# make soak   run the long tests: kill and resume runs, fuzz files, train every recipe (about half an hour)
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/installed

.PHONY: demo test soak lint clean-demo

$(SETUP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-test: $(SETUP)
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

demo: $(SETUP) clean-demo
	$(BIN)/python data/make_phantom.py --output data/demo --train-frames 96 --validation-frames 24 --height 400
	$(BIN)/python unet/train.py --train data/demo/train --validation data/demo/validation --name demo \
		--epochs 4 --learning-rate 1e-3 --base-channels 16 --scale 0.5 \
		--class-names bone,ligament
	$(BIN)/python unet/predict.py --load checkpoints/unet/demo/best.pth --input data/demo/validation
	$(BIN)/python unet/evaluate.py --load checkpoints/unet/demo/best.pth --input data/demo/validation
	@echo
	@echo "Look at:  results/unet/demo/epochs.xlsx             one row per epoch, curves"
	@echo "          results/unet/demo/predict/panels/         image, truth, prediction"
	@echo "          results/unet/demo/evaluate/files.xlsx     one row per file, summary, definitions"

clean-demo:
	rm -rf data/demo checkpoints/unet/demo results/unet/demo

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# One thread per process: the nets of the tests are so small that threads only wait for each other.
test: .venv/installed-test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

soak: .venv/installed-test
	$(BIN)/python -m pytest -s --soak tests/robustness/test_killing.py tests/robustness/test_fuzz.py \
		tests/robustness/test_fuzz_sequences.py tests/robustness/test_fuzz_annotations.py \
		tests/training/test_recipes.py
