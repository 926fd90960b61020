"""The zoo is the reference's list of published weights, no more and no less."""
import json

import pytest

from convnext_dense.checkpoints import zoo
from convnext_dense.errors import UserError
from convnext_dense.recipes.metafile import load_recipes


def test_table_is_the_reference(reference_dir):
    published = json.loads((reference_dir / 'published_weights.json').read_text())
    recipes = json.loads((reference_dir / 'published_recipes.json').read_text())
    urls = {row['url'] for row in published} | {row[key] for row in recipes
                                                for key in ('pretrained_url', 'finetuned_url')}
    official = [weight for weight in zoo.WEIGHTS.values() if not weight.name.startswith(('dinov3', 'eupe'))]
    assert {weight.url for weight in official} == urls
    assert len(official) == len(urls)
    licences = {row['url']: row['licence'] for row in published}
    for weight in official:
        assert weight.licence == licences.get(weight.url, zoo.MIT)  # the dense ones are of the V1 repository
    for recipe in recipes:
        assert zoo.find(recipe['name']).url == recipe['finetuned_url']
        assert zoo.find(recipe['name']).format == {'det': 'detector', 'seg': 'segmentor'}[recipe['task']]
    for row in published:
        weight = next(weight for weight in zoo.WEIGHTS.values() if weight.url == row['url'])
        assert (weight.format == 'FCMAE') == ('FCMAE' in row['section'])
        assert (weight.format == 'isotropic') == ('isotropic' in row['section'])
        assert weight.name.startswith('convnextv2_' if 'V2' in row['model'] else 'convnext_')
        assert str(row['resolution']) in weight.name or row['resolution'] == 224


def test_dinov3_and_eupe_are_the_reference(reference_dir):
    facts = json.loads((reference_dir / 'published_dinov3.json').read_text())
    for family, licence in (('dinov3', 'DINOv3'), ('eupe', 'FAIR-NC')):
        rows = facts[family]['weights']
        found = [weight for weight in zoo.WEIGHTS.values() if weight.name.startswith(family)]
        assert [weight.url for weight in found] == [row['url'] for row in rows]
        for weight, row in zip(found, rows, strict=True):
            assert weight.name == f'{family}_convnext_{row["size"]}' and weight.licence.split()[0] == licence
            assert weight.hub == (f'hf-hub:{row["hub"]}' if 'hub' in row else None)
            assert (weight.access is not None and weight.access in facts[family]['licence']) == (family == 'dinov3')
    assert {weight.name.split('_')[0] for weight in zoo.WEIGHTS.values() if weight.noncommercial} \
        == {'convnextv2', 'eupe'}


def test_recipes_start_from_the_names_of_their_published_weights(reference_dir, repo_root):
    from mmengine.config import Config
    recipes = json.loads((reference_dir / 'published_recipes.json').read_text())
    expected = sorted(recipe['pretrained_url'] for recipe in recipes)
    used = [zoo.find(Config.fromfile(repo_root / recipe.config).model.backbone.init_cfg.checkpoint).url
            for recipe in load_recipes() if recipe.published]
    assert sorted(used) == expected


@pytest.mark.parametrize('typo, wanted', [('convnext_tiny_in1', 'convnext_tiny_in1k'),
                                          ('convnext_v2_base_fcmae', 'convnextv2_base_fcmae'),
                                          ('ConvNeXt_Large_IN22k', 'convnext_large_in22k')])
def test_unknown_name_gives_the_nearest(typo, wanted):
    with pytest.raises(UserError, match='nearest names') as error:
        zoo.find(typo)
    assert wanted in str(error.value)


def test_the_docs_list_the_zoo(repo_root):
    page = (repo_root / 'docs/checkpoints.md').read_text()
    rows = [line for line in page.partition('<!-- zoo -->')[2].splitlines() if line.startswith('| `')]
    assert rows == [f'| `{weight.name}` | {weight.format} | {weight.licence.split()[0]} | '
                    f'[{weight.url.rpartition("/")[2]}]({weight.url}) |' for weight in zoo.WEIGHTS.values()]
