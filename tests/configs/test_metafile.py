"""Metafiles, configs, zoo, published rows and the generated tables say the same."""
import pytest
import yaml
from rows import ROOT, ROWS, config_path

from convnext_dense.checkpoints import zoo
from convnext_dense.errors import UserError
from convnext_dense.recipes.metafile import fill_tables, find_recipe, load_recipes, tables_of_pages

METRICS = {'box AP': 'box_map', 'mask AP': 'mask_map', 'mIoU': 'miou', 'mIoU(ms+flip)': 'miou_ms_flip'}


def test_published_recipes_are_the_rows():
    recipes = {recipe.name: recipe for recipe in load_recipes() if recipe.published}
    assert list(recipes) == [row['name'] for row in ROWS]
    for row in ROWS:
        recipe = recipes[row['name']]
        assert ROOT / recipe.config == config_path(row)
        assert recipe.weights == row['finetuned_url'] == zoo.find(row['name']).url
        assert recipe.metrics == {name: row[key] for name, key in METRICS.items() if key in row}
        assert (f'{recipe.params}M', f'{recipe.flops}G') == (row['params'], row['flops'])
        assert (recipe.method, recipe.task) == (row['method'], row['task'])


def test_every_config_has_an_entry_and_the_other_way_round():
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('*/*.py')
               if path.parent.name != '_base_' and 'shapes' not in path.stem}
    assert sorted(recipe.config for recipe in load_recipes()) == sorted(configs)


def test_what_is_not_published_says_so_or_names_its_source():
    for recipe in load_recipes():
        assert recipe.published or 'not published' in recipe.note or (recipe.metrics and recipe.note), recipe.name


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_metafile_has_openmmlab_form(task):
    content = yaml.safe_load((ROOT / f'configs/{task}/metafile.yml').read_text())
    collections = {collection['Name'] for collection in content['Collections']}
    for model in content['Models']:
        assert model['In Collection'] in collections
        assert model['Name'] == (ROOT / model['Config']).stem and (ROOT / model['Config']).is_file()
        assert model['Paper'].keys() == {'URL', 'Title'}
        for result in model.get('Results', []):
            assert result.keys() == {'Task', 'Dataset', 'Metrics'}


@pytest.mark.parametrize('page', tables_of_pages())
def test_tables_are_up_to_date(page):
    text = (ROOT / page).read_text()
    assert fill_tables(text, tables_of_pages()[page]) == text, 'run tools/update_tables.py'


def test_unknown_row_names_the_nearest():
    with pytest.raises(UserError, match='the nearest one is upernet_convnext-t-in1k_ade20k-512x512'):
        find_recipe('upernet_convnext-t-ade20k-512x512')
    with pytest.raises(UserError, match='<!-- published table'):
        fill_tables('a page without markers', {'published': ''})
