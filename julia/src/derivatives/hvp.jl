"""
    second_order_pass!(ws, net, θ, block, objective, scale, lowest = 1)

Forward with f' and f'', then ∂ℓ/∂a in `E` and ∂ℓ/∂h in `Δ` of every layer from `lowest` on (of `scale` times the
block's loss): what every second derivative starts from.
"""
function second_order_pass!(ws::Workspace{T}, net, θ, block::Block{T}, objective::Loss, scale::T,
                            lowest::Int=1) where {T}
    layers = net.layers
    forward!(ws, net, θ, block, 2)
    block_loss!(objective, last(ws.E), ws, block, scale)
    for l in length(layers):-1:lowest
        hadamard!(ws.Δ[l], ws.D[l], ws.E[l], block.n, layers[l].width)
        pull_chains!(ws.Δ[l], ws, layers[l], l, block.n)
        l > lowest && pullback!(ws.E[l-1], ws.Δ[l], θ, layers[l], block.n)
    end
    return nothing
end

"Δ̇ = D ∘ Ė + S ∘ E ∘ Ḣ in column j; `Δ̇` holds Ė on entry."
@inline function chain_dot!(Δ̇, D, S, E, Ḣ, j, n)
    @inbounds @lanes r n Δ̇[r, j] = muladd(D[r, j], Δ̇[r, j], S[r, j] * E[r, j] * Ḣ[r, j])
end

"""
    hvp!(y, net, θ, v) -> y

Overwrite `y` with the Hessian-vector product ∇²L(θ) v, without the Hessian: the directional derivative of
the backward pass (Pearlmutter, Neural Computation 6, 1994). Costs about two gradients.
"""
function hvp!(y::Vector{T}, net::Net{T}, θ::Vector{T}, v::Vector{T}) where {T}
    foreach(a -> check_params(net, a), (y, θ, v))
    check_data(net)
    prepare!(net.objective, net, θ)
    net.crew.total.vector = y
    sum_shares!(ProductPass(), net, θ, v)
    net.crew.total.vector = nothing
    add_outer_product!(y, net.objective, net, θ, v)
    return add_penalty_hvp!(y, net.regulariser, θ, v)
end

function sum_samples!(::ProductPass, sums::Sums{T}, worker::Worker{T}, net::Net{T}, θ::Vector{T},
                      v::Vector{T}, objective::Loss) where {T}
    ws, layers, y = worker.workspace, net.layers, fill!(sums.vector::Vector{T}, 0)
    L = length(layers)
    lowest = narrow_first_layer(layers) ? 2 : 1
    scale = one(T) / net.n_samples
    for b in worker.blocks
        beat(worker, net) || return false
        block = net.blocks[b]
        n = block.n
        second_order_pass!(ws, net, θ, block, objective, scale, lowest)
        for l in 1:L
            linear!(ws.Ḣ[l], layer_input(ws, block, l), v, layers[l], n)
            if l > 1                # the input has no derivative: W Ȧ enters from the second layer on
                linear_dot!(ws.Ȧ[l], ws.Ȧ[l-1], θ, layers[l], n)
                add!(ws.Ḣ[l], ws.Ȧ[l], n, layers[l].width)
            end
            hadamard!(ws.Ȧ[l], ws.D[l], ws.Ḣ[l], n, layers[l].width)
            push_chains!(ws.Ȧ[l], ws, layers[l], l, n)
        end
        loss_dot!(objective, ws.Δ̇[L], ws, ws.Ȧ[L], block, scale)
        for l in L:-1:lowest
            for j in 1:layers[l].width
                chain_dot!(ws.Δ̇[l], ws.D[l], ws.S[l], ws.E[l], ws.Ḣ[l], j, n)
            end
            pull_chains!(ws.Δ̇[l], ws, layers[l], l, n)
            bend_chains!(ws.Δ̇[l], ws.E[l], ws.Ḣ[l], ws, layers[l], l, n)
            accumulate!(y, ws.Δ̇[l], layer_input(ws, block, l), layers[l], n)
            l > 1 && accumulate_weights!(y, ws.Δ[l], ws.Ȧ[l-1], layers[l], n)
            if l > lowest
                pullback!(ws.Δ̇[l-1], ws.Δ̇[l], θ, layers[l], n)         # Wᵀ Δ̇
                pullback!(ws.Ȧ[l-1], ws.Δ[l], v, layers[l], n)          # Vᵀ Δ; Ȧ is free from here on
                add!(ws.Δ̇[l-1], ws.Ȧ[l-1], n, layers[l-1].width)
            end
        end
        lowest == 2 && first_layer_dot!(y, ws, θ, v, block, layers)
    end
    return true
end

# A first layer of few inputs below a single unit, as of most networks here, is left to one pass over each column: nine
# of them took 3 ns a sample and unit, three times the gradient of a relu net.
narrow_first_layer(layers) =
    length(layers) > 1 && layers[2].width == 1 && layers[1].fan_in <= 3 && isempty(layers[1].chains)

"What the first layer adds to the product `y`, with E = Δ₂ w and Ė = Δ̇₂ w + Δ₂ v of each unit made on the way."
function first_layer_dot!(y, ws::Workspace, θ, v, block::Block, layers)
    l, o = layers[1], layers[2].offset
    @inbounds for j in 1:l.width
        k = (j - 1) * l.fan_in
        if l.fan_in == 1
            total, s1 = backpropagate_dot!(Val(1), ws, j, θ[o+j], v[o+j], block.X, block.n)
            y[k+1] += s1
        elseif l.fan_in == 2
            total, s1, s2 = backpropagate_dot!(Val(2), ws, j, θ[o+j], v[o+j], block.X, block.n)
            y[k+1] += s1
            y[k+2] += s2
        else
            total, s1, s2, s3 = backpropagate_dot!(Val(3), ws, j, θ[o+j], v[o+j], block.X, block.n)
            y[k+1] += s1
            y[k+2] += s2
            y[k+3] += s3
        end
        l.bias && (y[bias_offset(l)+j] += total)
    end
    return nothing
end

"Sums over samples of Δ̇ = D ∘ Ė + S ∘ E ∘ Ḣ of unit `j` in the first layer, and of its products with the `K` inputs."
@inline @generated function backpropagate_dot!(::Val{K}, ws::Workspace{T}, j::Int, w::T, v::T, X::Matrix{T},
                                               n::Int) where {K,T}
    s = [Symbol(:s, k) for k in 1:K]
    return quote
        D, S, Ḣ, Δ, Δ̇, m = ws.D[1], ws.S[1], ws.Ḣ[1], ws.Δ[2], ws.Δ̇[2], size(X, 1)
        c = (j - 1) * size(D, 1)
        GC.@preserve D S Ḣ Δ Δ̇ X begin
            $(in_chunks(T, [:total; s], V -> quote
                δ = load($V, Δ, r)
                ė = muladd(load($V, Δ̇, r), w, δ * v)
                d = muladd(load($V, D, c + r), ė, load($V, S, c + r) * load($V, Ḣ, c + r) * δ * w)
                total += d
                $((:($x = muladd(d, load($V, X, $(k - 1) * m + r), $x)) for (k, x) in enumerate(s))...)
            end))
        end
        return $(Expr(:tuple, :(sum(total)), (:(sum($x)) for x in s)...))
    end
end

"H = A Wᵀ, without the bias"
linear_dot!(H, A, θ, l::Layer, n) = combine!(H, l.width, A, l.fan_in, forth_linear(θ, l), n)

function add!(C, A, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n C[r, j] += A[r, j]
    end
    return C
end

"""
    hvp(net, θ, v) -> ∇²L(θ) v
"""
hvp(net::AbstractNet, θ, v) = hvp!(similar(θ), net, θ, v)
