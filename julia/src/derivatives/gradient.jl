layer_input(ws::Workspace, block::Block, l::Int) = l == 1 ? block.X : ws.A[l-1]

"Activations of all layers for one block; f' too for `order` 1, f'' too for `order` 2."
function forward!(ws::Workspace, net, θ, block::Block, order::Int)
    n = block.n
    for (l, layer) in enumerate(net.layers)
        A, D, S, X = ws.A[l], ws.D[l], ws.S[l], layer_input(ws, block, l)
        whole = by_blas(layer) || by_tile(eltype(A), layer.fan_in, layer.width, n)
        whole && linear!(A, X, θ, layer, n)
        kinked = !isempty(block.kinks)
        if kinked
            for j in 1:layer.width
                whole || linear_column!(A, j, X, θ, layer, n)
            end
            whole = true
            unknown(keep_preactivations!)(block, l, A)
        end
        for columns in layer.columns        # by dynamic calls
            if order == 0
                unknown(forward_columns!)(columns.activation, Val(0), A, D, S, X, θ, layer, n, columns, whole)
            elseif order == 1
                unknown(forward_columns!)(columns.activation, Val(1), A, D, S, X, θ, layer, n, columns, whole)
            else
                unknown(forward_columns!)(columns.activation, Val(2), A, D, S, X, θ, layer, n, columns, whole)
            end
        end
        kinked && unknown(take_sides!)(block, l, A, D, order)
        isempty(layer.chains) || unknown(compose_chains!)(ws, layer, l, n, order)
    end
    net.output_factor == 1 || scale_outputs!(ws, net.output_factor, n, last(net.layers).width, order)
    return nothing
end

# Where the pre-activations are not there as a `whole`, column by column, so that they are in the first-level cache. Few
# samples fill the columns without a gap, and all of them are one long column.
function forward_columns!(a::Activation, order::Val, A, D, S, X, θ, layer::Layer, n::Int, columns::Columns, whole::Bool)
    if whole && n == size(A, 1) && n < 64 && !(a isa Union{Custom,Blend})       # whose loop counts rows and columns
        activate!(a, order, A, D, S, n * (columns.last - columns.first + 1), columns.first)
        return nothing
    end
    for j in columns.first:columns.last
        whole || linear_column!(A, j, X, θ, layer, n)
        activate!(a, order, A, D, S, n, j)
    end
    return nothing
end

function keep_preactivations!(block::Block, l::Int, A::Matrix)
    for k in block.kinks
        k.layer == l || continue
        for u in 1:size(k.h, 2)
            @inbounds @simd for r in 1:block.n
                k.h[r, u] = A[r, k.first+u-1] - k.position
            end
        end
    end
    return nothing
end

# With f(h) less jump · max(h, 0) smooth at the kink, what lies on its other side is continued smoothly across it.
function take_sides!(block::Block{T}, l::Int, A::Matrix{T}, D::Matrix{T}, order::Int) where {T}
    for k in block.kinks
        k.layer == l || continue
        h, side = k.h, k.side
        for u in 1:size(h, 2)
            j = k.first + u - 1
            @inbounds @simd for r in 1:block.n
                A[r, j] += k.jump * (side[r, u] - (h[r, u] > 0)) * h[r, u]
            end
            order >= 1 && @inbounds @simd for r in 1:block.n
                D[r, j] += k.jump * (side[r, u] - (h[r, u] > 0))
            end
        end
    end
    return nothing
end

function scale_outputs!(ws::Workspace{T}, factor::T, n::Int, outputs::Int, order::Int) where {T}
    A, D, S = last(ws.A), last(ws.D), last(ws.S)
    @inbounds for o in 1:outputs
        @lanes r n A[r, o] *= factor
        order >= 1 && @lanes r n D[r, o] *= factor
        order >= 2 && @lanes r n S[r, o] *= factor
    end
    return nothing
end

"""
    loss(net, θ) -> L(θ)

L(θ) = (1/N) Σᵢ wᵢ ℓ(f(xᵢ; θ), yᵢ) + R(θ), the mean over samples plus the regularisers.
"""
loss(net::Net, θ) = data_loss(net, θ) + penalty(net.regulariser, θ)

"""
    data_loss(net, θ)

The loss without regularisers.
"""
function data_loss(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_data(net)
    prepare!(net.objective, net, θ)
    sum_shares!(LossPass(), net, θ)
    return net.crew.total.value / net.n_samples
end

make_arrays!(sums::Sums, ::LossPass, net) = nothing
add_sums!(::LossPass, total::Sums, sums::Sums) = (total.value += sums.value; nothing)

function sum_samples!(::LossPass, sums::Sums{T}, worker::Worker{T}, net::Net{T}, θ::Vector{T}, v,
                      objective::Loss) where {T}
    s = zero(T)
    for b in worker.blocks
        beat(worker, net) || return false
        forward!(worker.workspace, net, θ, net.blocks[b], 0)
        s += block_loss(objective, worker.workspace, net.blocks[b])::T
    end
    sums.value = s
    return true
end

"""
    value_and_gradient!(g, net, θ) -> L(θ)

Loss and gradient in one pass; `g` (length P) is overwritten with ∇L.
"""
function value_and_gradient!(g::Vector{T}, net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_params(net, g)
    check_data(net)
    prepare!(net.objective, net, θ)
    total = net.crew.total
    total.vector = g
    sum_shares!(GradientPass(), net, θ)
    total.vector = nothing
    add_penalty_gradient!(g, net.regulariser, θ)
    return total.value / net.n_samples + penalty(net.regulariser, θ)
end

function make_arrays!(sums::Sums{T}, ::Union{GradientPass,ProductPass}, net) where {T}
    sums.vector === nothing && (sums.vector = zeros(T, net.n_params))
    return nothing
end
function add_sums!(pass::Union{GradientPass,ProductPass}, total::Sums{T}, sums::Sums{T}) where {T}
    pass isa GradientPass && (total.value += sums.value)
    add_to!(total.vector::Vector{T}, sums.vector::Vector{T})
    return nothing
end
function add_to!(A, B)
    @inbounds @simd for i in eachindex(A)
        A[i] += B[i]
    end
    return A
end

function sum_samples!(::GradientPass, sums::Sums{T}, worker::Worker{T}, net::Net{T}, θ::Vector{T}, v,
                      objective::Loss) where {T}
    ws, layers, g = worker.workspace, net.layers, fill!(sums.vector::Vector{T}, 0)
    s = zero(T)
    scale = one(T) / net.n_samples
    for b in worker.blocks
        beat(worker, net) || return false
        block = net.blocks[b]
        n = block.n
        forward!(ws, net, θ, block, 1)
        s += block_loss!(objective, last(ws.Δ), ws, block, scale)::T
        for l in length(layers):-1:1
            backward!(g, ws, θ, block, layers, l)
        end
    end
    sums.value = s
    return true
end

"""
Δ of layer `l` and its part of the gradient `g`, in one pass over each column where the layer has few inputs.
"""
function backward!(g, ws::Workspace{T}, θ, block::Block, layers, l::Int) where {T}
    n, layer, Δ, A = block.n, layers[l], ws.Δ[l], layer_input(ws, block, l)
    if !isempty(layer.chains)
        pullback!(Δ, ws.Δ[l+1], θ, layers[l+1], n)
        hadamard!(Δ, ws.D[l], Δ, n, layer.width)
        unknown(pull_chains!)(Δ, ws, layer, l, n)
        accumulate!(g, Δ, A, layer, n)
        return nothing
    end
    direct = l < length(layers) && layers[l+1].width == 1        # E is a multiple of the one column that follows
    l == length(layers) || direct || pullback!(Δ, ws.Δ[l+1], θ, layers[l+1], n)
    apart = in_one_product(layer)
    @inbounds for j in 1:layer.width
        E, c, w = direct ? (ws.Δ[l+1], 1, θ[layers[l+1].offset+j]) : (Δ, j, one(T))
        o = layer.offset + (j - 1) * layer.fan_in
        if apart
            total, = backpropagate!(Val(0), Δ, j, ws.D[l], E, c, w, A, n)
        elseif layer.fan_in == 1
            total, s1 = backpropagate!(Val(1), Δ, j, ws.D[l], E, c, w, A, n)
            g[o+1] += s1
        else
            total, s1, s2 = backpropagate!(Val(2), Δ, j, ws.D[l], E, c, w, A, n)
            g[o+1] += s1
            g[o+2] += s2
            accumulate_weights!(g, Δ, j, A, layer, 3, n)
        end
        layer.bias && (g[bias_offset(layer)+j] += total)
    end
    apart && accumulate_weights!(g, Δ, A, layer, n)
    return nothing
end

"""
    data_terms(net, θ) -> [L, ‖∇L‖_∞]

Loss and gradient norm without the regularisers.
"""
function data_terms(net::AbstractNet, θ)
    value, g = data_value_and_gradient(net, θ)
    return Float64[value, reduce(max, abs.(g); init=zero(eltype(g)))]
end

function data_value_and_gradient(net::Net{T}, θ::Vector{T}) where {T}
    g = similar(θ)
    value_and_gradient!(g, net, θ)
    return data_loss(net, θ), g - add_penalty_gradient!(zero(θ), net.regulariser, θ)
end

# A method of its own, reached by one dynamic call, so that the loss comes back unboxed.
@noinline function value_and_gradient_into!(value, g, net, x)
    value[] = value_and_gradient!(g, net, x)
    return nothing
end

"""
    gradient!(g, net, θ) -> g

Overwrite `g` (length P) with ∇L(θ).
"""
function gradient!(g, net::AbstractNet, θ)
    value_and_gradient!(g, net, θ)
    return g
end

"""
    gradient(net, θ) -> ∇L(θ)

    julia> net = Net(layers = ((1, identity, false),), input = [1.0 2.0], target = [2.0 4.0]);

    julia> gradient(net, [1.0])         # L = ((θ - 2)² + (2θ - 4)²)/2
    1-element Array{Float64,1}:
     -5.0
"""
gradient(net::AbstractNet, θ) = gradient!(similar(θ), net, θ)

"""
    predict(net, θ, X) -> outputs

Outputs (O×M) for other inputs `X` (D×M).
"""
function predict(net::Net{T}, θ::Vector{T}, X::AbstractMatrix) where {T}
    check_params(net, θ)
    size(X, 1) == n_features(net) ||
        throw(DimensionMismatch("this net takes $(n_features(net)) features, the input has $(size(X, 1))"))
    out = Matrix{T}(undef, n_outputs(net), size(X, 2))
    ws = Workspace{T}(net.layers, BLOCK)
    for i in 1:BLOCK:size(X, 2)
        samples = i:min(i + BLOCK - 1, size(X, 2))
        block = Block{T}(X, zeros(T, 0, size(X, 2)), nothing, samples)
        forward!(ws, net, θ, block, 0)
        finish_outputs!(last(net.layers).activation, ws, block.n, n_outputs(net))
        out[:, samples] = transpose(last(ws.A)[1:length(samples), 1:n_outputs(net)])
    end
    return out
end

"""
    predict(net, θ) -> outputs (O×N) on the net's own data
"""
function predict(net::Net{T}, θ::Vector{T}) where {T}
    check_params(net, θ)
    check_data(net)
    out = Matrix{T}(undef, n_outputs(net), n_samples(net))
    ws = net.crew.workers[1].workspace
    i = 0
    for block in net.blocks
        heartbeat(net.monitor)
        forward!(ws, net, θ, block, 0)
        finish_outputs!(last(net.layers).activation, ws, block.n, n_outputs(net))
        m = min(block.n, n_samples(net) - i)
        out[:, i+1:i+m] = transpose(last(ws.A)[1:m, 1:n_outputs(net)])
        i += m
    end
    return out
end
