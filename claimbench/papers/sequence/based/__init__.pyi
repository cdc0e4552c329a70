from .layer import BasedMixer as BasedMixer
from .layer import taylor_attention as taylor_attention
from .model import LanguageModel as LanguageModel
from .model import based as based
from .model import based_mixers as based_mixers
from .taylor import Taylor as Taylor
